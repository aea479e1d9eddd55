with flights as (

    select * from {{ ref('int_flights_joined_planes') }}

),

airports as (

    select * from {{ ref('stg_nyc_reference__airports') }}

),

summed as (

    select
        origin_airport_code,
        destination_airport_code,
        count(*) as flight_count,
        count(*) filter (where departure_hhmm is null) as cancelled_flight_count,
        count(distinct carrier_code) as carrier_count,
        max(distance_miles) as distance_miles,
        coalesce(sum(seat_count) filter (where departure_hhmm is not null), 0) as flown_seat_count
    from flights
    group by origin_airport_code, destination_airport_code

),

final as (

    select
        summed.origin_airport_code,
        summed.destination_airport_code,
        airports.airport_name as destination_airport_name,
        summed.flight_count,
        summed.cancelled_flight_count,
        summed.carrier_count,
        summed.distance_miles,
        summed.flown_seat_count,
        airports.airport_code is not null as has_destination_airport
    from summed
    left join airports on summed.destination_airport_code = airports.airport_code

)

select * from final
