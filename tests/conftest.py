"""What holds for every test: no property is judged by the clock, which the first call of a kernel would fail."""

from hypothesis import settings

settings.register_profile("treering", deadline=None)
settings.load_profile("treering")
