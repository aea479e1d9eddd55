with source as (

    select * from {{ source('nyc_reference', 'airlines') }}

),

renamed as (

    select
        carrier::text as carrier_code,

        name::text as airline_name,

        _synced_at as synced_at
    from source
    where not coalesce(_deleted, false)

),

final as (

    select * from renamed

)

select * from final
