with source as (

    select * from {{ source('nyc_weather', 'weather') }}

),

renamed as (

    select
        origin::text as airport_code,

        temp::double precision as temperature_fahrenheit,
        dewp::double precision as dew_point_fahrenheit,
        humid::double precision as relative_humidity_percent,
        wind_dir::double precision as wind_direction_degrees,
        wind_speed::double precision as wind_speed_mph,
        wind_gust::double precision as wind_gust_mph,
        precip::double precision as precipitation_inches,
        pressure::double precision as pressure_millibars,
        visib::double precision as visibility_miles,

        make_date(year::integer, month::integer, day::integer) as observation_date,
        time_hour::timestamptz as observed_hour_at,

        _synced_at as synced_at
    from source
    where not coalesce(_deleted, false)

),

final as (

    select * from renamed

)

select * from final
