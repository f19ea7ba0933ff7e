from hypothesis import settings

# No deadline: a loaded machine makes no test wrong.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, print_blob=True)
settings.load_profile("default")
