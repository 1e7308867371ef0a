"""/api/v1/database/: what the admin's database pages show, and what they do."""
