with events as (

    select * from {{ ref('stg_github__events') }}

),

final as (

    select
        delivery_id,
        event_type,
        action,
        repository_name,
        sender_name,

        received_at
    from events

)

select * from final
