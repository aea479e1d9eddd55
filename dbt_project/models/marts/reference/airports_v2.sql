with airports as (

    select * from {{ ref('stg_nyc_reference__airports') }}

),

final as (

    select
        airport_code,
        airport_name,
        time_zone_name,

        latitude_degrees,
        longitude_degrees,
        altitude_feet,
        round((altitude_feet * 0.3048)::numeric, 1) as altitude_metres,
        utc_offset_hours,

        case daylight_saving_code
            when 'A' then true
            when 'N' then false
        end as has_daylight_saving
    from airports

)

select * from final
