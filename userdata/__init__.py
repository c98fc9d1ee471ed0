"""What runs on a gateway: its user data, its releases, and the agent that makes the machine follow them."""
