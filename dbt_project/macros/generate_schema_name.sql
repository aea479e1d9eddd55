{#- A model lives in exactly the schema that its folder names, without a prefix. Marts are built in marts__next beside the
    served ones where Headwater runs dbt: it moves them to marts once their tests have passed. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- set schema = (custom_schema_name or target.schema) | trim -%}
    {%- set is_mart = node.resource_type == 'model' and schema == 'marts' -%}
    {{ schema }}{{ env_var('HEADWATER_DBT_MARTS', '') if is_mart }}
{%- endmacro %}
