// The pixels and the input that generated code makes of an image: PROGRAM NAMESPACE WIDTH HEIGHT, RGB in, bytes out.
// The test writes codes.hpp: an #include of each code, and a CODE(namespace) for it in CODES.
#include "codes.hpp"

#define CODE(name) \
    if (which == #name) { \
        const auto fitted = name::fit(name::Image{width, height, rgb}); \
        const auto values = name::encode(name::normalise(fitted)); \
        std::cout.write(reinterpret_cast<const char*>(fitted.rgb.data()), fitted.rgb.size()); \
        std::cout.write(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(values[0])); \
    }

int main(int, char** argv) {
    const std::string which = argv[1];
    const int width = std::stoi(argv[2]), height = std::stoi(argv[3]);
    const std::vector<uint8_t> rgb{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
    CODES
}
