with flights as (

    select * from {{ ref('int_flights_joined_planes') }}

),

weather as (

    select * from {{ ref('stg_nyc_weather__weather') }}

),

final as (

    select
        flights.*,
        weather.temperature_fahrenheit,
        weather.wind_speed_mph,
        weather.precipitation_inches,
        weather.visibility_miles,
        weather.airport_code is not null as has_weather
    from flights
    left join weather
        on
            flights.origin_airport_code = weather.airport_code
            and flights.scheduled_hour_at = weather.observed_hour_at

)

select * from final
