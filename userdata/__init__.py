"""The software of a gateway: its user data, its releases, and the agent that makes the machine run them."""
