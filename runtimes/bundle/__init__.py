"""The edge bundle: what its description says, how its archive is read, and whether it may run on a machine.

A bundle comes from elsewhere: every module here takes it for hostile until it is proved otherwise. Must not import
anything of ours but ``runtimes``, nor a runtime at module level.
"""
