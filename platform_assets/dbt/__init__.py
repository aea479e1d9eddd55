"""dbt as this platform runs it: its environment, its manifest as asset specs, the guard, one invocation."""
