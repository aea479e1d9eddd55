with airlines as (

    select * from {{ ref('stg_nyc_reference__airlines') }}

),

final as (

    select
        carrier_code,
        airline_name
    from airlines

)

select * from final
