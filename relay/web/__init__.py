BACKLOG = 128
"""clients that the kernel keeps until they are accepted"""
