// What a torch that was built without CUDA lacks before autograd takes tensors that say they are on cuda:0: CUDA as the
// accelerator, with one device and one stream. Loaded in front of torch's libraries, so that this getAccelerator is found.

#include <optional>

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace at::accelerator {

std::optional<c10::DeviceType> getAccelerator(bool) { return c10::DeviceType::CUDA; }

}  // namespace at::accelerator

namespace at {

struct CUDAHooks : CUDAHooksInterface {
  CUDAHooks(CUDAHooksArgs) {}
  bool hasPrimaryContext(DeviceIndex) const override { return false; }
};

REGISTER_CUDA_HOOKS(CUDAHooks)

}  // namespace at

namespace c10::impl {

struct OneDevice : NoOpDeviceGuardImpl<DeviceType::CUDA> {
  Device getDevice() const override { return Device(DeviceType::CUDA, 0); }
  Device exchangeDevice(Device) const override { return getDevice(); }
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, getDevice()); }
  Stream exchangeStream(Stream) const noexcept override { return getStream(getDevice()); }
};

C10_REGISTER_GUARD_IMPL(CUDA, OneDevice)

}  // namespace c10::impl
