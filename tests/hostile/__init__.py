"""Those who mean no good: senders and far ends that flood, and a soak that measures who suffers."""
