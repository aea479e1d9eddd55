with source as (

    select * from {{ source('nyc_flights', 'flights') }}

),

renamed as (

    select
        carrier::text as carrier_code,
        flight::bigint as flight_number,
        origin::text as origin_airport_code,
        dest::text as destination_airport_code,
        tailnum::text as tail_number,

        sched_dep_time::integer as scheduled_departure_hhmm,
        dep_time::integer as departure_hhmm,
        dep_delay::integer as departure_delay_minutes,
        sched_arr_time::integer as scheduled_arrival_hhmm,
        arr_time::integer as arrival_hhmm,
        arr_delay::integer as arrival_delay_minutes,
        air_time::integer as air_time_minutes,
        distance::integer as distance_miles,

        make_date(year::integer, month::integer, day::integer) as flight_date,
        time_hour::timestamptz as scheduled_hour_at,
        _synced_at as synced_at
    from source
    where not coalesce(_deleted, false)

),

final as (

    select * from renamed

)

select * from final
