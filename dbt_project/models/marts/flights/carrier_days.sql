with flights as (

    select * from {{ ref('int_flights_joined_weather') }}

),

summed as (

    select
        carrier_code,
        flight_date,
        count(*) as flight_count,
        count(*) filter (where departure_hhmm is null) as cancelled_flight_count,
        count(*) filter (where arrival_delay_minutes < 15) as on_time_flight_count,
        count(*) filter (where tail_number is not null and not has_plane) as unregistered_plane_flight_count,
        count(*) filter (where has_weather) as weather_flight_count,
        coalesce(sum(departure_delay_minutes), 0) as departure_delay_minutes,
        coalesce(sum(arrival_delay_minutes), 0) as arrival_delay_minutes,
        sum(distance_miles) as distance_miles,
        coalesce(sum(seat_count) filter (where departure_hhmm is not null), 0) as flown_seat_count
    from flights
    group by carrier_code, flight_date

),

final as (

    select
        carrier_code,
        flight_count,
        cancelled_flight_count,
        on_time_flight_count,
        unregistered_plane_flight_count,
        weather_flight_count,
        departure_delay_minutes,
        arrival_delay_minutes,
        distance_miles,
        flown_seat_count,
        (sum(flight_count) over last_week)::bigint as last_7_days_flight_count,
        (sum(departure_delay_minutes) over last_week)::bigint as last_7_days_departure_delay_minutes,
        flight_date
    from summed
    window last_week as (
        partition by carrier_code
        order by flight_date
        range between interval '6 days' preceding and current row
    )

)

select * from final
