with users as (

    select * from {{ ref('stg_faker_shop__users') }}

),

purchases as (

    select * from {{ ref('stg_faker_shop__purchases') }}

),

purchases_by_customer as (

    select
        customer_id,
        count(purchased_at) as purchase_count,
        count(returned_at) as return_count,
        max(purchased_at) as last_purchased_at
    from purchases
    group by customer_id

),

final as (

    select
        users.customer_id,

        users.customer_name,
        users.nationality,
        users.occupation,

        coalesce(purchases_by_customer.purchase_count, 0) as purchase_count,
        coalesce(purchases_by_customer.return_count, 0) as return_count,

        users.created_at,
        purchases_by_customer.last_purchased_at
    from users
    left join purchases_by_customer on users.customer_id = purchases_by_customer.customer_id

)

select * from final
