"""The places where releases serve, each with the operations of `deploy.rollout.target.Target`."""
