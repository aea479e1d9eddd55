with flights as (

    select * from {{ ref('stg_nyc_flights__flights') }}

),

planes as (

    select * from {{ ref('stg_nyc_reference__planes') }}

),

final as (

    select
        flights.*,
        planes.seat_count,
        planes.tail_number is not null as has_plane
    from flights
    left join planes on flights.tail_number = planes.tail_number

)

select * from final
