"""The steps of flows, agents' and driver's, over what every door calls, over the pure domain in `tasks.council`."""
