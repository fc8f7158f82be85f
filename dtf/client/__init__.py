"""The asyncio client of the coordinator and of the trend analyzer."""
