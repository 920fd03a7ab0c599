"""Consumer groups of the newer protocol (KIP-848): the coordinator assigns, and members follow one by one.

```
group epoch       grows with every change: who is a member, what they subscribe to, what the topics are
target epoch      the group epoch for which it has been decided who shall have what
member epoch      the target epoch at which a member has arrived: it has let go of all that is not its own any more
```
A partition is given to a member once its former owner has confirmed that it let go of it (LOG_INVARIANTS 44).
"""
