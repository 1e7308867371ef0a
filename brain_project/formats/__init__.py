"""How the pages write dates and times; settings.FORMAT_MODULE_PATH."""
