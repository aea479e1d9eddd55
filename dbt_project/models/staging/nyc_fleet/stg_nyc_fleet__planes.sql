with source as (

    select * from {{ source('nyc_fleet', 'planes') }}

),

renamed as (

    select
        tailnum::text as tail_number,

        type::text as plane_type,
        manufacturer::text as manufacturer_name,
        model::text as model_name,
        engine::text as engine_type,

        year::integer as manufactured_year,
        engines::integer as engine_count,
        seats::integer as seat_count,
        speed::integer as cruising_speed_mph,

        _synced_at as synced_at
    from source
    where not coalesce(_deleted, false)

),

final as (

    select * from renamed

)

select * from final
