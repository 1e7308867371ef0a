"""Our side: the site's own settings with an app of benchmark tasks."""
