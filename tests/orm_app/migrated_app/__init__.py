"""An app whose migrations each test writes for itself: MIGRATION_MODULES names the package."""
