"""Klein resources, the Site and its guards."""
