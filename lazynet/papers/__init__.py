"""Reproductions of papers: one module for each paper, with its settings, figures and claims."""

from lazynet.papers.claims import Claim, Reproduction

__all__ = ["Claim", "Reproduction"]
