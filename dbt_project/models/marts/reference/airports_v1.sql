with airports as (

    select * from {{ ref('stg_nyc_reference__airports') }}

),

final as (

    select
        airport_code,
        airport_name,
        latitude_degrees as latitude,
        longitude_degrees as longitude,
        altitude_feet as altitude,
        utc_offset_hours
    from airports

)

select * from final
