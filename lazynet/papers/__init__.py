"""Papers, reproduced: each a module with its settings, figures and claims."""

from lazynet.papers.claims import Claim, Reproduction

__all__ = ["Claim", "Reproduction"]
