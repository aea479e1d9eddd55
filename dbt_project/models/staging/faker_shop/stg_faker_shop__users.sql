with source as (

    select * from {{ source('faker_shop', 'users') }}

),

renamed as (

    select
        id::bigint as customer_id,

        name::text as customer_name,
        nationality::text as nationality,
        occupation::text as occupation,

        created_at::timestamptz as created_at,
        updated_at::timestamptz as updated_at,

        _synced_at as synced_at
    from source
    where not coalesce(_deleted, false)

),

final as (

    select * from renamed

)

select * from final
