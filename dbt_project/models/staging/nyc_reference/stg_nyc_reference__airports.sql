with source as (

    select * from {{ source('nyc_reference', 'airports') }}

),

renamed as (

    select
        faa::text as airport_code,

        name::text as airport_name,
        dst::text as daylight_saving_code,
        tzone::text as time_zone_name,

        lat::double precision as latitude_degrees,
        lon::double precision as longitude_degrees,
        alt::integer as altitude_feet,
        tz::integer as utc_offset_hours,

        _synced_at as synced_at
    from source
    where not coalesce(_deleted, false)

),

final as (

    select * from renamed

)

select * from final
