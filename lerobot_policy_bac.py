"""LeRobot's entry to `bac`.

LeRobot imports every installed distribution whose name begins with ``lerobot_policy_`` as a module of that name. This
is that module. Importing it changes nothing yet: wrap a policy in your own script with ``bac.wrap(policy, schedule)``.
"""
