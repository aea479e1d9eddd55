with source as (

    select * from {{ source('github', 'events') }}

),

renamed as (

    select
        _delivery_id::text as delivery_id,
        _event_type::text as event_type,
        payload ->> 'action' as action,
        payload -> 'repository' ->> 'full_name' as repository_name,
        payload -> 'sender' ->> 'login' as sender_name,

        payload,

        _received_at::timestamptz as received_at,
        _synced_at as synced_at
    from source
    where not coalesce(_deleted, false)

),

final as (

    select * from renamed

)

select * from final
