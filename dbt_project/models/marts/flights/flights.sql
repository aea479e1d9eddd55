{#- A late, corrected or repeated row carries a new synced_at, so row for row it is what decides; a watermark would
    lose rows that were stamped early and committed late. -#}
{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key=['carrier_code', 'flight_number', 'origin_airport_code', 'scheduled_hour_at'],
        on_schema_change='fail',
        post_hook="{{ delete_gone_rows(ref('stg_nyc_flights__flights'), config.get('unique_key')) }}"
    )
}}

with flights as (

    select * from {{ ref('stg_nyc_flights__flights') }}

),

changed as (

    select flights.*
    from flights
    {% if is_incremental() %}
        where not exists (
            select 1
            from {{ this }} as built
            where
                built.carrier_code = flights.carrier_code
                and built.flight_number = flights.flight_number
                and built.origin_airport_code = flights.origin_airport_code
                and built.scheduled_hour_at = flights.scheduled_hour_at
                and built.synced_at = flights.synced_at
        )
    {% endif %}

),

final as (

    select
        carrier_code,
        flight_number,
        origin_airport_code,
        destination_airport_code,
        tail_number,

        case
            when departure_hhmm is null then 'cancelled'
            when arrival_delay_minutes is null then 'diverted'
            when arrival_delay_minutes < 15 then 'on_time'
            else 'late'
        end as arrival_status,

        scheduled_departure_hhmm,
        departure_hhmm,
        departure_delay_minutes,
        scheduled_arrival_hhmm,
        arrival_hhmm,
        arrival_delay_minutes,
        air_time_minutes,
        distance_miles,

        departure_hhmm is null as is_cancelled,

        flight_date,
        scheduled_hour_at,
        synced_at
    from changed

)

select * from final
