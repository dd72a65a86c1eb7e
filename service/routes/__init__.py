"""The routes, a file a subject.

Bodies are read and answers written by hand: an answer costs little beside its images.
"""
