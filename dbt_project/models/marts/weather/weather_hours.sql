with weather as (

    select * from {{ ref('stg_nyc_weather__weather') }}

),

final as (

    select
        airport_code,

        temperature_fahrenheit,
        dew_point_fahrenheit,
        relative_humidity_percent,
        wind_direction_degrees,
        wind_speed_mph,
        wind_gust_mph,
        precipitation_inches,
        pressure_millibars,
        visibility_miles,

        precipitation_inches > 0 as is_wet,

        observation_date,
        observed_hour_at
    from weather

)

select * from final
