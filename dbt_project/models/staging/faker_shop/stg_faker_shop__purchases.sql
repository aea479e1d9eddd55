with source as (

    select * from {{ source('faker_shop', 'purchases') }}

),

renamed as (

    select
        id::bigint as purchase_id,
        product_id::bigint as product_id,
        user_id::bigint as customer_id,

        created_at::timestamptz as created_at,
        updated_at::timestamptz as updated_at,
        added_to_cart_at::timestamptz as added_to_cart_at,
        purchased_at::timestamptz as purchased_at,
        returned_at::timestamptz as returned_at,

        _synced_at as synced_at
    from source
    where not coalesce(_deleted, false)

),

final as (

    select * from renamed

)

select * from final
