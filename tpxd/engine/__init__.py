"""What runs the connections that files declare: their queues, links, retries, commands, health and reload."""
