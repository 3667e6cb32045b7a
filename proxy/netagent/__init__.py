"""What keeps privileges: the set-up of device, rules, routes and packet filter, and its undoing."""
