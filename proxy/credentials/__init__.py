"""Who we are and whom we believe: the pod's key and chain, the project's roots, and the judgement of a peer."""
