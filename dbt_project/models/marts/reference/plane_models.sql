with planes as (

    select * from {{ ref('stg_nyc_fleet__planes') }}

),

final as (

    select
        manufacturer_name,
        model_name,

        count(*) as aircraft_count,
        max(seat_count) as seat_count,
        min(manufactured_year) as first_manufactured_year,
        max(manufactured_year) as last_manufactured_year
    from planes
    group by manufacturer_name, model_name

)

select * from final
