"""Puts a server under load: wrong answers, leaks and throughput. See `__main__`."""
