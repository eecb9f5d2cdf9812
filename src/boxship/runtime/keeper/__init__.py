"""The keeper: one small single-threaded process that starts, holds and reaps every container.

Standard library only, and little of it: each container is a fork of this process, and a fork costs in
proportion to what is mapped.
"""
