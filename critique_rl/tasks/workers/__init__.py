"""Functions in processes of their own, which may hang, crash or eat memory without harm.

pool       a few processes of `killable_process`: many calls under one deadline, a second try
           for a call that was lost
child      what runs in such a process
"""
