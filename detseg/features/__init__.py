"""Cache of the features of frozen layers: :class:`FeatureCache` is all that a training needs of it."""

from detseg.features.cache import CacheSettings, FeatureCache

__all__ = ["CacheSettings", "FeatureCache"]
