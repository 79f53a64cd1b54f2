"""Cache of the features of frozen layers: :class:`FeatureCache` is all that a training needs of it."""

from detseg.features.cache import CacheOptions, FeatureCache

__all__ = ["CacheOptions", "FeatureCache"]
