"""How pods tell each other of signed lists: a pod that cannot reach the CA has the newest from its peers."""
