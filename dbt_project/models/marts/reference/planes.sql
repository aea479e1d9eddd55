with planes as (

    select * from {{ ref('stg_nyc_reference__planes') }}

),

final as (

    select
        tail_number,
        plane_type,
        manufacturer_name,
        model_name,
        engine_type,

        manufactured_year,
        engine_count,
        seat_count
    from planes

)

select * from final
